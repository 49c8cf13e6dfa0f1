//! The 512 bytes in front of each member.
