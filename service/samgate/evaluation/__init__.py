"""Accuracy on a labelled data set: mIoU of the masks that box and point prompts get, measured through the gateway."""
