"""IS ONE OR BOTH, worker and manager: identity on disk, renewal, known managers, supervision."""
