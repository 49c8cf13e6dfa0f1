//! Local images: content, references, layers, collection.
