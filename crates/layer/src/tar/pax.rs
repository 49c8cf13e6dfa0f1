//! PAX records.
