"""The one base class of every error that hetgraph raises on bad input."""


class HetgraphError(ValueError):
    """Bad input, a broken file, or a mismatch between a schema and what was given.

    The message names the sample, the node or edge type, the field, what was expected and what came.
    """


class MediaError(HetgraphError):
    """A media item (picture, sound, text) could not be read or holds nothing usable."""


class ManifestError(HetgraphError):
    """A manifest is malformed; the message lists every fault with its line and column."""


class CheckpointError(HetgraphError):
    """A checkpoint is missing, damaged, of another schema, or could not be written."""
