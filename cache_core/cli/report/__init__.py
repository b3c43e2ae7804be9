"""The command `glasscache report`: what it says, and the formats that it says it in."""
