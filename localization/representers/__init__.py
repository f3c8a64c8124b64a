"""Why a place was found: the training points that caused it.

``points`` keeps them, ``explain`` ranks them, ``mips`` searches very many of them.
"""
