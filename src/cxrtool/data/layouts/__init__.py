"""Files of public data sets, and any sheet: which rows each split has, where their images are, what labels mean."""
