//! The fuzz target of the connection: any peer at all.
