"""One contract for all faces: blocking, asyncio, uvloop and trio."""
