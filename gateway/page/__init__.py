"""The page for people at `GET /`: static files and a short JSON for programs. The page itself calls the jobs API."""
