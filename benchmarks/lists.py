"""Manifest lists put together from blocks: what hundreds of lists of a table share is encoded once."""

from __future__ import annotations

import io
from collections.abc import Sequence

import attrs
from pyiceberg.avro.codecs import AVRO_CODEC_KEY
from pyiceberg.avro.encoder import BinaryEncoder
from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.io import OutputFile
from pyiceberg.manifest import MANIFEST_LIST_FILE_SCHEMAS, ManifestFile


def list_file(output: OutputFile, metadata: dict[str, str]) -> AvroOutputFile[ManifestFile]:
    """Return an Avro file that takes manifests, as pyiceberg's own writer of manifest lists uses it."""
    return AvroOutputFile[ManifestFile](
        output_file=output,
        record_schema=MANIFEST_LIST_FILE_SCHEMAS[2],
        file_schema=MANIFEST_LIST_FILE_SCHEMAS[2],
        schema_name="manifest_file",
        metadata={**metadata, AVRO_CODEC_KEY: "deflate"},
    )


@attrs.frozen
class Block:
    """Manifests encoded as one block of an Avro file, without the mark that ends it, which every file chooses anew."""

    encoded: bytes

    @classmethod
    def of(cls, manifests: Sequence[ManifestFile], unopened: OutputFile) -> Block:
        """Encode manifests.

        :param unopened: what an Avro file is made for; nothing is written to it.
        """
        target, listing = io.BytesIO(), list_file(unopened, {})
        if manifests:
            listing.encoder = BinaryEncoder(target)
            listing.write_block(list(manifests))
        return cls(target.getvalue()[: -len(listing.sync_bytes)])

    def write(self, listing: AvroOutputFile[ManifestFile]) -> None:
        """Write the block to a list."""
        if self.encoded:
            listing.encoder.write(self.encoded)
            listing.encoder.write(listing.sync_bytes)
