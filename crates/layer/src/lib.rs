//! A layer as a stream: decompress, digest, tar events, writers, and the way back.
