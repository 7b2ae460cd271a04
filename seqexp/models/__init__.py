"""Forward passes only: nothing here knows of files, trainers or configurations."""
