"""From w* to what is seen: ``activation`` maps, ``boxes`` and masks out of them, ``grabcut`` along objects' edges."""
