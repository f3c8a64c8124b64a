"""Where dense features come from: our networks, a function of the caller, or files of feature maps."""
