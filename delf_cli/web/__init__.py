"""The page of `delf-jax serve`: ``app`` is the server, ``api`` its JSON interface; .html, .css and .js are the page.

``searcher`` and ``localizer`` compute the answers; ``guard`` decides which requests are allowed.
"""
