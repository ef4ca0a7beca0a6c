"""What a Director knows of pools: their gangs, what they have to do, and how many gangs they are to have."""
