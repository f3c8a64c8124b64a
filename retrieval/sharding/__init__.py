"""An index in shards, for collections that outgrow one process.

``sharded_index`` is what users open, ``layout`` the folder, ``building`` and ``changes`` write it, ``local_servers``
and ``ray_servers`` answer.
"""
