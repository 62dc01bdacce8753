"""Pure converters between stored objects and the Engine API's JSON; no I/O, no clock."""
