"""How good localization is: ``datasets`` with true boxes and masks, ``protocols`` and ``metrics`` of the field."""
