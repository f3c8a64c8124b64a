"""An index in shards, for collections that are too large for one process: ``sharded_index`` is what users open.

``layout`` is its folder, which ``building`` and ``changes`` write. ``shard`` answers for one shard, ``snapshot`` joins
the answers of all, and ``local_servers`` and ``ray_servers`` hold the shards in this process or on a Ray cluster.
"""
