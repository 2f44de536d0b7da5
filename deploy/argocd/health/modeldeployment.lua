-- Health of a ModelDeployment. A model at zero is healthy: its next request starts a replica.
-- Argo CD's Lua has no string library; only `..` and comparisons are used.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready

if ready == nil then
  return {status = "Progressing", message = "The operator has not looked at it yet."}
end
if (ready.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return {status = "Progressing", message = "The operator has not seen the last change yet."}
end

-- A Pod that the API server refuses stops a rollout also while older replicas serve.
local template = conditions.TemplateValid
if template ~= nil and template.status == "False" then
  return {status = "Degraded", message = template.message}
end
if ready.status ~= "True" then
  local health = "Degraded"
  if ready.reason == "Starting" or ready.status == "Unknown" then
    health = "Progressing"
  end
  return {status = health, message = ready.message}
end

local total, updated = status.replicas or 0, status.updatedReplicas or 0
if updated < total then
  local told = updated .. " of " .. total .. " replicas are of the last revision."
  return {status = "Progressing", message = told}
end
return {status = "Healthy", message = ready.message}
