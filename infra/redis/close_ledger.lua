-- The ledger is not to be trusted any more: it is closed until everything is counted anew.
redis.call('DEL', 'ledger:epoch', 'ledger:settled', 'ledger:alive')
return 1
