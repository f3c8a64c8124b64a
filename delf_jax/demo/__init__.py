"""The demo's photos, and the page on which it shows what it found."""
