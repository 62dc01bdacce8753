"""Small services of a manager: Health, ResourceAllocator, Watch. See README.md."""
