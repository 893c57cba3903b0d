-- A ticket, how its job ended, and the state of the job. KEYS: ticket, job record. Gives {ticket, end, reference, state, attempts} (missing: '').
local ticket = redis.call('HMGET', KEYS[1], 'ticket', 'end', 'ref')
local record = redis.call('HMGET', KEYS[2], 'state', 'n')
return {ticket[1] or '', ticket[2] or '', ticket[3] or '', record[1] or '', tonumber(record[2] or 0)}
