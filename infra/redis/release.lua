-- Gives back what is held for a job that never began. With holds.lua before it. ARGV: job id, tokens used or ''. Gives 1, or 0.
return release(ARGV[1], tonumber(ARGV[2]), milliseconds())
