//! Sans-IO HTTP/3 and WebTransport.
