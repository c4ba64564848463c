from tests.empty_folder import inside_an_empty_folder  # noqa: F401
