//! What a user means: every verb is a function here.
