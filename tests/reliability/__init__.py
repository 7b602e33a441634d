"""The promises of docs/reliability.md: as tests, and longer as `python -m tests.reliability`."""
