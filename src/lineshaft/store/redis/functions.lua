-- What happens inside the server: one call per commit, and everything that must not be torn apart.
--
-- Keys of a shard, all under its tag, such as "{lineshaft:3}:", which is the first key without its last byte:
--   m        hash: epoch, owner, position, nonce, counters, and which process served it last (life)
--   o:B f:B  hashes: rows of open and of finished tasks of bucket B (256 arrivals), by one byte
--   b0:B …   hashes: blobs by kind, alike
--   ob fb    sorted sets: the buckets that have open and finished rows
--   i        hash: identity -> bucket and byte
--   s        hash: digest of a tenant and a spec -> both
--   n        hash: digest and state -> how many finished tasks
--   p x      sorted sets: when finished tasks, and results, are due to go -> bucket:bytes; an entry that no
--            longer tells the truth is dropped when its time comes
--   r        hash: records     l  stream: the log     c  list: where history was cut
-- A row begins with the digest of its spec (10 bytes), its state (1), its identity (12), and when it and its
-- result are due to go (8 each, -1 for never).

local SLICE = 4000  -- Lua unpacks fewer than 8000 values at once
local MARGIN = 60000  -- ms by which clocks may differ
local POSITIONS, FENCES, ARRIVALS, EPOCHS = 4, 1024, 256, 1000  -- no shard makes more of them in a ms
local CUTS_KEPT = 20

local DONE, NOT_OWNED, NOT_NEXT = 0, 1, 2

-- Not an alias: while a library is loaded there is no redis.call yet.
local function call(...) return redis.call(...) end

local function sliced(command, key, list, first, last)
  for from = first, last, SLICE do
    call(command, key, unpack(list, from, math.min(from + SLICE - 1, last)))
  end
end

local function tag_of(keys)
  return string.sub(keys[1], 1, -2)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Which process, as which primary, serves: another one may have lost the end of what the last had.
local function life()
  local server, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
  if type(server) ~= 'string' or type(replication) ~= 'string' then return '' end
  local run = string.match(server, 'run_id:(%w+)') or ''
  return run .. (string.match(replication, 'master_replid:(%w+)') or '')
end

local function is_owned(tag, epoch, owner)
  local meta = call('HMGET', tag .. 'm', 'epoch', 'owner', 'position')
  return meta[1] == epoch and meta[2] == owner, meta
end

local function forget_bucket_if_empty(index, key, bucket)
  if call('EXISTS', key) == 0 then call('ZREM', index, bucket) end
end

local function count(counts, key, by)
  counts[key] = (counts[key] or 0) + by
end

local function write_counts(tag, counts)
  for key, by in pairs(counts) do
    if by ~= 0 and call('HINCRBY', tag .. 'n', key, whole(by)) == 0 then call('HDEL', tag .. 'n', key) end
  end
end

-- Take rows out of the finished ones of a bucket; return how many there were.
local function unfinish(tag, bucket, fields, counts)
  local key = tag .. 'f:' .. bucket
  if call('EXISTS', key) == 0 then return 0 end
  local gone = {}
  for n, row in ipairs(call('HMGET', key, unpack(fields))) do
    if row then
      gone[#gone + 1] = fields[n]
      count(counts, string.sub(row, 1, 11), -1)
    end
  end
  if #gone > 0 then
    call('HDEL', key, unpack(gone))
    forget_bucket_if_empty(tag .. 'fb', key, bucket)
  end
  return #gone
end

local function unopen(tag, bucket, fields)
  local key = tag .. 'o:' .. bucket
  local gone = call('HDEL', key, unpack(fields))
  if gone > 0 then forget_bucket_if_empty(tag .. 'ob', key, bucket) end
  return gone
end

local function forget(tag, bucket, fields, idents, counts)
  unopen(tag, bucket, fields)
  unfinish(tag, bucket, fields, counts)
  for kind = 0, 3 do call('HDEL', tag .. 'b' .. kind .. ':' .. bucket, unpack(fields)) end
  local gone = {}
  for n, held in ipairs(call('HMGET', tag .. 'i', unpack(idents))) do
    if held == bucket .. fields[n] then gone[#gone + 1] = idents[n] end
  end
  if #gone > 0 then call('HDEL', tag .. 'i', unpack(gone)) end
end

-- Write pairs of field and row; `known` of them were in the other hash of the bucket.
local function put(tag, kind, bucket, args, first, last, known)
  local added = call('HSET', tag .. kind .. ':' .. bucket, unpack(args, first, last))
  if added > 0 then call('ZADD', tag .. kind .. 'b', bucket, bucket) end
  if added > known then
    -- Some of them are new, and each has an identity.
    local idents = {}
    for at = first, last, 2 do
      idents[#idents + 1], idents[#idents + 2] = string.sub(args[at + 1], 12, 23), bucket .. args[at]
    end
    call('HSET', tag .. 'i', unpack(idents))
  end
end

local function take(args, first, last, step)
  local taken = {}
  for at = first, last, step do taken[#taken + 1] = args[at] end
  return taken
end

-- How much memory is used, and how much may be; 0 for any.
local function memory()
  local told = redis.pcall('INFO', 'memory')
  if type(told) ~= 'string' then return 0, 0 end
  local used, most = string.match(told, 'used_memory:(%d+)'), string.match(told, 'maxmemory:(%d+)')
  return tonumber(used or '0'), tonumber(most or '0')
end

-- {plan, values…}: apply a batch if the shard is the caller's and the batch is the next. The plan says what the
-- values are, in their order: of which hashes, and how many.
local function commit(keys, args)
  local tag, plan, owner, nonce, counters, changes = tag_of(keys), cmsgpack.unpack(args[1]), unpack(args, 2, 5)
  local epoch, previous, position, now, specs, forgotten, open, ended = unpack(plan, 1, 8)
  local counted, blobs, records, records_gone, due, results_due, measure = unpack(plan, 9, 15)
  local meta = call('HMGET', tag .. 'm', 'epoch', 'owner', 'position', 'nonce')
  if meta[1] ~= epoch or meta[2] ~= owner then return {NOT_OWNED, meta[1] or '0', meta[3] or '0'} end
  if meta[3] == position and meta[4] == nonce then
    -- Written again, so that a WAIT of this connection waits for what another one has written.
    call('HSET', tag .. 'm', 'nonce', nonce)
    return {DONE}
  end
  if (meta[3] or '0') ~= previous then return {NOT_NEXT, meta[1], meta[3] or '0'} end

  -- First of all what a full memory refuses: then nothing was changed.
  call('XADD', tag .. 'l', position .. '-0', 'a', now, 'd', changes)
  call('HSET', tag .. 'm', 'position', position, 'nonce', nonce, 'counters', counters)

  local first, last, counts = 0, 5, {}
  local function next_values(count)
    first, last = last + 1, last + count
    return first, last
  end
  sliced('HSET', tag .. 's', args, next_values(2 * specs))
  for _, each in ipairs(forgotten) do
    local fields = take(args, next_values(each[2]), last, 1)
    forget(tag, each[1], fields, take(args, next_values(each[2]), last, 1), counts)
  end
  for _, each in ipairs(open) do
    next_values(2 * each[2])
    local known = 0
    if call('EXISTS', tag .. 'f:' .. each[1]) == 1 then
      known = unfinish(tag, each[1], take(args, first, last, 2), counts)
    end
    put(tag, 'o', each[1], args, first, last, known)
  end
  for _, each in ipairs(ended) do
    local fields = take(args, next_values(2 * each[2]), last, 2)
    local known = unfinish(tag, each[1], fields, counts) + unopen(tag, each[1], fields)
    put(tag, 'f', each[1], args, first, last, known)
  end
  next_values(2 * counted)
  for at = first, last, 2 do count(counts, args[at], tonumber(args[at + 1])) end
  write_counts(tag, counts)
  for _, each in ipairs(blobs) do
    sliced('HSET', tag .. each[1], args, next_values(2 * each[2]))
    sliced('HDEL', tag .. each[1], args, next_values(each[3]))
  end
  sliced('HSET', tag .. 'r', args, next_values(2 * records))
  sliced('HDEL', tag .. 'r', args, next_values(records_gone))
  sliced('ZADD', tag .. 'p', args, next_values(2 * due))
  sliced('ZADD', tag .. 'x', args, next_values(2 * results_due))
  if measure == 1 then return {DONE, memory()} end
  return {DONE}
end

-- {owner, now, and what the caller knows: epoch, position, arrival, fence}: take the shard under a new epoch.
-- Where another process serves, or less is here than the caller knows, the end of history may be lost: what
-- is counted goes on beyond all that can have been handed out, and the cut is kept.
local function acquire(keys, args)
  local tag, owner, now = tag_of(keys), args[1], tonumber(args[2])
  local known_epoch, known_position = tonumber(args[3]), tonumber(args[4])
  local known_seq, known_fence = tonumber(args[5]), tonumber(args[6])
  local meta = call('HMGET', tag .. 'm', 'epoch', 'position', 'counters', 'life')
  local epoch, position = tonumber(meta[1] or '0'), tonumber(meta[2] or '0')
  local serving = life()
  local is_other = meta[4] and (serving == '' or meta[4] ~= serving)
  local is_cut = known_position > position or known_epoch > epoch
  local written = {'owner', owner, 'life', serving}
  local to = position
  if is_other or is_cut then
    local counters = cmsgpack.unpack(meta[3] or cmsgpack.pack({0, 0, 0}))
    local time = call('TIME')
    local elapsed = math.max(now, time[1] * 1000) - counters[1]
    local span = math.max(0, elapsed) + MARGIN
    to = math.max(position + span * POSITIONS, known_position)
    counters[2] = math.max(counters[2] + span * ARRIVALS, known_seq)
    counters[3] = math.max(counters[3] + span * FENCES, known_fence)
    epoch = math.max(epoch, known_epoch) + EPOCHS
    if position > 0 or known_position > 0 then
      call('RPUSH', tag .. 'c', whole(position) .. ' ' .. whole(to) .. ' ' .. args[2])
      call('LTRIM', tag .. 'c', -CUTS_KEPT, -1)
      for _, each in ipairs({'position', whole(to), 'nonce', '', 'counters', cmsgpack.pack(counters)}) do
        written[#written + 1] = each
      end
    else
      to = position
    end
  end
  written[#written + 1], written[#written + 2] = 'epoch', whole(epoch + 1)
  call('HSET', tag .. 'm', unpack(written))
  return {whole(epoch + 1), whole(position), whole(to), is_other and 1 or 0, call('LRANGE', tag .. 'c', 0, -1)}
end

-- {epoch, owner}: leave the shard without an owner, if it is the caller's.
local function release(keys, args)
  local tag = tag_of(keys)
  if is_owned(tag, args[1], args[2]) then call('HDEL', tag .. 'm', 'owner') end
  return DONE
end

-- {epoch, owner}: the truth about the shard.
local function look(keys, args)
  local tag = tag_of(keys)
  local owned, meta = is_owned(tag, args[1], args[2])
  return {owned and DONE or NOT_OWNED, meta[1] or '0', meta[3] or '0', call('LRANGE', tag .. 'c', 0, -1)}
end

-- {epoch, owner}: all that a load needs but the rows.
local function survey(keys, args)
  local tag = tag_of(keys)
  local owned, meta = is_owned(tag, args[1], args[2])
  if not owned then return {NOT_OWNED, meta[1] or '0', meta[3] or '0'} end
  return {
    DONE, meta[1], meta[3] or '0', call('HGET', tag .. 'm', 'counters') or '',
    call('HGETALL', tag .. 's'), call('HGETALL', tag .. 'n'), call('HGETALL', tag .. 'r'),
    call('ZRANGE', tag .. 'ob', 0, -1),
  }
end

-- {epoch, owner, digests…}: forget specs that no task has.
local function sweep_specs(keys, args)
  local tag = tag_of(keys)
  if not is_owned(tag, args[1], args[2]) then return NOT_OWNED end
  call('HDEL', tag .. 's', unpack(args, 3))
  return DONE
end

-- {identities…}: rows, false where there is none.
local function get(keys, args)
  local tag, rows = tag_of(keys), {}
  for n, place in ipairs(call('HMGET', tag .. 'i', unpack(args))) do
    rows[n] = false
    if place then
      local bucket, field = string.sub(place, 1, -2), string.sub(place, -1)
      rows[n] = call('HGET', tag .. 'o:' .. bucket, field) or call('HGET', tag .. 'f:' .. bucket, field)
    end
  end
  return rows
end

-- {hash, how many, fields…, hash, …}: values, in order.
local function read(keys, args)
  local tag, values, n = tag_of(keys), {}, 1
  while n < #args do
    local last = n + 1 + tonumber(args[n + 1])
    for _, value in ipairs(call('HMGET', tag .. args[n], unpack(args, n + 2, last))) do
      values[#values + 1] = value
    end
    n = last + 1
  end
  return values
end

-- {kinds}: which buckets there are, those of both kinds twice.
local function buckets(keys, args)
  local tag, found = tag_of(keys), {}
  for kind in string.gmatch(args[1], '.') do
    for _, bucket in ipairs(call('ZRANGE', tag .. kind .. 'b', 0, -1)) do found[#found + 1] = bucket end
  end
  return found
end

-- {kinds, buckets…}: the rows of buckets, by field, of the kinds "o", "f" or "of".
local function walk(keys, args)
  local tag, found = tag_of(keys), {}
  for n = 2, #args do
    for kind in string.gmatch(args[1], '.') do
      found[#found + 1] = call('HGETALL', tag .. kind .. ':' .. args[n])
    end
  end
  return found
end

-- {buckets…}: the digests of all rows in them, each once.
local function digests(keys, args)
  local tag, seen, found = tag_of(keys), {}, {}
  for _, bucket in ipairs(args) do
    for kind in string.gmatch('of', '.') do
      for _, row in ipairs(call('HVALS', tag .. kind .. ':' .. bucket)) do
        local digest = string.sub(row, 1, 10)
        if not seen[digest] then
          seen[digest] = true
          found[#found + 1] = digest
        end
      end
    end
  end
  return found
end

-- {after, limit}: records of the log, its first position, and the last of all.
local function log(keys, args)
  local tag = tag_of(keys)
  local first = call('XRANGE', tag .. 'l', '-', '+', 'COUNT', 1)
  return {
    call('XRANGE', tag .. 'l', '(' .. args[1] .. '-0', '+', 'COUNT', args[2]),
    first[1] and first[1][1] or '',
    call('HGET', tag .. 'm', 'position') or '0',
  }
end

-- Take out of the members of one score at most `limit` fields, in order of arrival; give the rest back.
local function cut(index, score, members, limit)
  local all = {}
  for _, member in ipairs(members) do
    local split = string.find(member, ':', 1, true)
    local bucket = string.sub(member, 1, split - 1)
    for at = split + 1, #member do all[#all + 1] = {bucket, string.sub(member, at, at)} end
  end
  table.sort(all, function(a, b)
    if #a[1] ~= #b[1] then return #a[1] < #b[1] end
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local fields, rest = {}, {}
  for n, each in ipairs(all) do
    local part = n <= limit and fields or rest
    part[each[1]] = (part[each[1]] or '') .. each[2]
  end
  for bucket, bytes in pairs(rest) do call('ZADD', index, score, bucket .. ':' .. bytes) end
  local taken = {}
  for bucket, bytes in pairs(fields) do taken[#taken + 1] = bucket .. ':' .. bytes end
  return taken
end

-- What is due of an index, first what is due first, at most `limit` fields: {bucket, score, fields}.
local function take_due(index, before, limit)
  local taken, left = {}, limit
  local entries = call('ZRANGEBYSCORE', index, '-inf', before, 'WITHSCORES', 'LIMIT', 0, limit)
  local n = 1
  while n <= #entries and left > 0 do
    local score, size = entries[n + 1], 0
    local members = call('ZRANGEBYSCORE', index, score, score)
    while entries[n + 1] == score do n = n + 2 end
    sliced('ZREM', index, members, 1, #members)
    for _, member in ipairs(members) do
      size = size + #member - string.find(member, ':', 1, true)
    end
    if size > left then members, size = cut(index, score, members, left), left end
    left = left - size
    for _, member in ipairs(members) do
      local split, fields = string.find(member, ':', 1, true), {}
      for at = split + 1, #member do fields[#fields + 1] = string.sub(member, at, at) end
      taken[#taken + 1] = {string.sub(member, 1, split - 1), tonumber(score), fields}
    end
  end
  return taken, limit - left
end

-- Those of the fields whose finished rows are really due then; `at` is where in the row that stands.
local function truly_due(tag, each, at)
  local fields, idents = {}, {}
  for n, row in ipairs(call('HMGET', tag .. 'f:' .. each[1], unpack(each[3]))) do
    if row and struct.unpack('>d', row, at) == each[2] then
      fields[#fields + 1], idents[#idents + 1] = each[3][n], string.sub(row, 12, 23)
    end
  end
  return fields, idents
end

-- {epoch, owner, before, limit}: delete finished tasks; {…, how many were looked at, digest and state, how many, …}.
local function prune(keys, args)
  local tag, counts = tag_of(keys), {}
  if not is_owned(tag, args[1], args[2]) then return {NOT_OWNED} end
  local taken, looked_at = take_due(tag .. 'p', args[3], tonumber(args[4]))
  for _, each in ipairs(taken) do
    local fields, idents = truly_due(tag, each, 24)
    if #fields > 0 then forget(tag, each[1], fields, idents, counts) end
  end
  write_counts(tag, counts)
  local removed = {DONE, looked_at}
  for key, by in pairs(counts) do
    removed[#removed + 1], removed[#removed + 2] = key, -by
  end
  return removed
end

-- {epoch, owner, before, limit}: delete results past their time; how many were looked at.
local function expire(keys, args)
  local tag = tag_of(keys)
  if not is_owned(tag, args[1], args[2]) then return {NOT_OWNED} end
  local taken, looked_at = take_due(tag .. 'x', args[3], tonumber(args[4]))
  for _, each in ipairs(taken) do
    local fields = truly_due(tag, each, 32)
    if #fields > 0 then call('HDEL', tag .. 'b1:' .. each[1], unpack(fields)) end
  end
  return {DONE, looked_at}
end

-- {epoch, owner, before, limit}: delete the beginning of the log that is older; how many positions.
local function truncate(keys, args)
  local tag = tag_of(keys)
  if not is_owned(tag, args[1], args[2]) then return {NOT_OWNED} end
  local stream, before = tag .. 'l', tonumber(args[3])
  local function entry(from)
    local found = call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
    if not found then return nil end
    return tonumber(string.match(found[1], '^%d+')), tonumber(found[2][2])
  end
  local first, at = entry('-')
  if not first or at >= before then return {DONE, 0} end
  local low, high = first + 1, first + tonumber(args[4])
  while low < high do
    local middle = math.floor((low + high) / 2)
    local position, written_at = entry(whole(middle))
    if position and position < high and written_at < before then
      low = position + 1
    else
      high = middle
    end
  end
  call('XTRIM', stream, 'MINID', whole(low))
  return {DONE, low - first}
end

-- {format, shards}: make the store where there is none; {format, shards} as they then are.
local function make(keys, args)
  local key = keys[1]
  if call('HSETNX', key, 'format', args[1]) == 1 then
    call('HSET', key, 'shards', args[2], 'life', life())
  end
  return call('HMGET', key, 'format', 'shards')
end

-- {expected, data}: replace the roster if its version is the expected one; {version, data} as it then is.
-- After a failover its version rises first: whoever has seen a version that is lost must not replace another.
local function swap_roster(keys, args)
  local key = keys[1]
  local held = call('HMGET', key, 'version', 'data', 'life')
  local version, data, serving = held[1] or '0', held[2] or '', life()
  local served = held[3] or call('HGET', string.gsub(key, 'roster$', 'store'), 'life')
  if served and served ~= serving then
    version = whole(tonumber(version) + EPOCHS)
    call('HSET', key, 'version', version, 'life', serving)
  elseif version == args[1] then
    version, data = whole(tonumber(version) + 1), args[2]
    call('HSET', key, 'version', version, 'data', data, 'life', serving)
  end
  return {version, data}
end
