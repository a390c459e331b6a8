"""The coordinator behind its protocol: calls (wire in, wire out), and over them the HTTP edge."""
