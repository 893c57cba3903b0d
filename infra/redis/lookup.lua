-- An entry of the exact cache. KEYS[1]: the entry. Gives its bytes, or nothing.
return redis.call('GET', KEYS[1])
