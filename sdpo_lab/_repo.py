"""Where the project lives, in one place: badges and install cells use this address and no other (a test holds it)."""

REPO_URL = "https://github.com/sdpo-lab/sdpo_lab"
