-- Removes keys. KEYS: them. Gives how many were there.
return redis.call('DEL', unpack(KEYS))
