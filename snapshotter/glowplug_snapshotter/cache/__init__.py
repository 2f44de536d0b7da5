"""The node's cache: one daemon on each node keeps snapshots on its disk, for all Pods there.

    server     what Pods may read: the layout of a store, over plain HTTP
    peering    what other nodes and the operator may ask, with a signature
    library    which contents are here, on their way, or only passed through
    shelf      the byte budget: who has to leave, and who may not
    disk       the directory, and what of it can be trusted after a crash
    blob       one content: which of its chunks are proved, and who waits for one
    download   brings one content, from peers and from the store
    choice     which chunk to fetch next, and from where
    peers      the other nodes: what they have, and whom not to ask for a while

Nothing is served that the manifest's crc32c does not prove, and the last chunk of a content only
when its blake3 is right, so no reader ends up with a whole file that was not proved.
"""
