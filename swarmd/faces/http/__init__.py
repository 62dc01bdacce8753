"""HTTP towards container engines, shared by the REST faces. See README.md."""
