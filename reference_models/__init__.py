"""Small networks trained with the losses. Nothing here is part of the library's API."""
