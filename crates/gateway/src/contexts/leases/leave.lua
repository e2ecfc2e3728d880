-- Gives a lease back: its key and its owner. What somebody else has taken meanwhile stays.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 0
