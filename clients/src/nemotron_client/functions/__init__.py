"""Python functions as the model sees them: their hints as JSON Schema, its JSON as their values."""
