// Why dead letters are dead, and what usually cures each reason: names in both languages, cures in Chinese. The English
// cures are the API's own.

/** By the reason's code: English name, Chinese name, Chinese cure. */
export const REASONS = {
  amount_mismatch: ["Amount differs", "金额不一致", "将订单与微信账单核对；若通知无误，请人工退款，然后丢弃。"],
  currency_mismatch: ["Currency differs", "币种不一致", "订单登记的是另一币种；请人工退款，然后丢弃。"],
  appid_mismatch: ["Appid differs", "appid 不一致", "若该 appid 属于本商户，请加入商户的 appids，然后重放。"],
  merchant_mismatch: ["Merchant differs", "商户号不一致", "更正该商户的 notify_url，或配置中的 mch_id，然后重放。"],
  unknown_merchant: ["Unknown merchant", "未知商户", "在配置中恢复该商户，然后重放。"],
  unknown_order: ["Order not registered", "订单未登记", "登记该订单，然后重放。"],
  surplus_payment: ["Paid twice", "重复支付", "客户支付了两次：请人工退还这笔支付，然后丢弃。"],
  paid_after_close: ["Paid after close", "关单后支付", "请人工退还这笔支付，或照常发货，然后丢弃。"],
  over_refund: ["Refunded too much", "退款超额", "在商户平台核对该订单的退款：退款通知可能是伪造的。"],
  refund_abnormal: ["Refund abnormal", "退款异常", "在商户平台处理异常退款，然后丢弃。"],
  transaction_mismatch: ["Transaction differs", "支付订单号不一致", "向微信查询该退款；待其所属支付生效后重放。"],
  unregistered_refund: ["Refund not registered", "退款未登记", "与发起的退款核对；若属实，登记后重放。"],
  conflicting_duplicate: ["Contradicting duplicate", "重复通知内容冲突", "两条通知互相矛盾：处理之前先向微信查询该笔支付。"],
  unsealed: ["Seal missing or wrong", "封印缺失或不符", "查明还有谁能向队列发布消息；若更换过封印密钥，将旧密钥设为 previous_key 后重放。"],
  unknown_version: ["Unknown version", "版本未知", "升级 worker，然后重放。"],
  unopenable: ["Cannot be opened", "无法解开", "更正商户密钥，然后重放。"],
  unsupported_algorithm: ["Unsupported algorithm", "不支持的加密算法", "将商户改为 AEAD_AES_256_GCM；人工向微信查询该笔交易。"],
  invalid_field: ["Invalid field", "字段无效", "向微信查询该笔交易；此通知无法生效。"],
  attempts_exhausted: ["Attempts exhausted", "尝试次数用尽", "按最后一次错误排除原因，然后重放。"],
  delivery_limit: ["Delivered too often", "投递次数超限", "worker 在处理此消息时崩溃：查明崩溃原因，然后重放。"],
};
