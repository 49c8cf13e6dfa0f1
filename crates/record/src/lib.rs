//! The one record of a container on disk.
