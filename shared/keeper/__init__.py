"""The command `keeper`: an edge. It may import core, rooms and laptop; nothing imports it, no function ships it."""
