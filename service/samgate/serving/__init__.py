"""The way of a request between the API and the engines."""
