//! Client of the management HTTP API.
