"""Where the project lives: badges and install cells use this address and no other."""

REPO_URL = "https://github.com/sdpo-lab/sdpo_lab"
