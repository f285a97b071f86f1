#!/bin/sh
# The browser test needs a Chromium. Installs Debian's package where it may, names the package where it may not.
# Always ends well: without a browser that test is skipped with the reason (and fails where CI=true).
set -u

for name in "${SDPO_LAB_CHROMIUM:-chromium}" chromium chromium-browser google-chrome google-chrome-stable \
    "/Applications/Chromium.app/Contents/MacOS/Chromium" "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done

if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    sudo="no"
fi

if command -v apt-get >/dev/null 2>&1 && [ "$sudo" != no ]; then
    echo "installing Debian's chromium for the browser test"
    # quiet: apt's progress names package servers, which do not belong in a log
    if $sudo apt-get -qq update >/dev/null 2>&1 &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null 2>&1 &&
        command -v chromium >/dev/null 2>&1; then
        exit 0
    fi
    echo "apt-get could not install chromium"
fi
echo "no Chromium here, so the browser test will be skipped. To run it, install one and call make again:"
echo "  Debian, Ubuntu   sudo apt-get install chromium"
echo "  Fedora           sudo dnf install chromium"
echo "  macOS            brew install --cask chromium"
echo "or name another build of it in the variable SDPO_LAB_CHROMIUM"
exit 0
