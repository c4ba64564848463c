"""The sections of reports, one module a command."""
