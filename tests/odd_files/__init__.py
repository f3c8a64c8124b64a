"""Files that other programs write, and the right value of each: by hand, or by an independent reader."""
