-- Counts what is used of limits, for all subjects or for none, by the time of this server.
--
-- KEYS: for each subject what it has used, and the requests of it that run.
-- ARGV: `take` (if all limits allow it) or `adjust` (in any case); the request; how long its running lasts unless it is
--   said again, milliseconds; then for each subject its limits of requests and tokens per minute and of running requests,
--   -1 for none, and what is to be counted of each.
-- Answers 1 or 0 (refused), which subject and which limit refuse, after how many milliseconds to come back (-1: never);
--   then for each subject what it has used, in parts of which a limit's worth runs off in a millisecond.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local takes, request, lasts = ARGV[1] == 'take', ARGV[2], tonumber(ARGV[3])
local SCALE = 60000
local subjects, refusal = {}, nil

local function text(number)
  return string.format('%.0f', number)
end

for index = 1, #KEYS / 2 do
  local at = 3 + (index - 1) * 6
  local limits, wanted = {}, {}
  for which = 1, 3 do
    limits[which] = tonumber(ARGV[at + which])
    wanted[which] = tonumber(ARGV[at + 3 + which])
  end
  if limits[3] >= 0 and wanted[3] > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2 * index], '-inf', now)
    if takes and not refusal and redis.call('ZCARD', KEYS[2 * index]) + wanted[3] > limits[3] then
      refusal = { index, 3, 1000 }
    end
  end
  local stored = redis.call('HMGET', KEYS[2 * index - 1], 'at', 'requests', 'tokens')
  local elapsed = math.max(0, now - tonumber(stored[1] or now))
  local used = {}
  for which = 1, 2 do
    local limit = limits[which]
    used[which] = 0
    if limit >= 0 then
      used[which] = math.max(0, tonumber(stored[which + 1] or 0) - elapsed * limit)
      if takes and not refusal and wanted[which] > 0 then
        local beyond = used[which] + (wanted[which] - limit) * SCALE
        if wanted[which] > limit then
          refusal = { index, which, -1 }
        elseif beyond > 0 then
          refusal = { index, which, math.ceil(beyond / limit) }
        end
      end
    end
  end
  subjects[index] = { limits = limits, wanted = wanted, used = used }
end

local answer = { refusal and 0 or 1, refusal and refusal[1] or 0, refusal and refusal[2] or 0, refusal and refusal[3] or 0 }
for index, subject in ipairs(subjects) do
  local limits, wanted, used = subject.limits, subject.wanted, subject.used
  if not refusal then
    local life = 0
    for which = 1, 2 do
      if limits[which] >= 0 then
        used[which] = math.max(0, used[which] + wanted[which] * SCALE)
        life = math.max(life, math.ceil(used[which] / limits[which]))
      end
    end
    if limits[1] >= 0 or limits[2] >= 0 then
      redis.call('HSET', KEYS[2 * index - 1], 'at', text(now), 'requests', text(used[1]), 'tokens', text(used[2]))
      redis.call('PEXPIRE', KEYS[2 * index - 1], text(math.min(life, 86400000) + 1000))
    end
    if limits[3] >= 0 and wanted[3] > 0 then
      redis.call('ZADD', KEYS[2 * index], text(now + lasts), request)
      redis.call('PEXPIRE', KEYS[2 * index], lasts)
    elseif limits[3] >= 0 and wanted[3] < 0 then
      redis.call('ZREM', KEYS[2 * index], request)
    end
  end
  answer[#answer + 1] = used[1]
  answer[#answer + 1] = used[2]
end
return answer
