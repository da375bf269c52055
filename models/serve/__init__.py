"""Serving: an OpenAI-compatible server, an MCP server and a page around one compressor.

Requests wait in one line and are worked on one at a time. Nothing of a request is written to the disk or used as a
path.
"""
